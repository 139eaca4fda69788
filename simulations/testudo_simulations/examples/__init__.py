"""Small federations to follow the worked examples with: tables in a folder, a plan that fits, and a newcomer's own."""
