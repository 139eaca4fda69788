"""The evaluation harness: how well a published meta-model, or an own one, does on rows it was not made from."""
