"""One data owner: its data, its local training under differential privacy, its Flower ClientApp."""
