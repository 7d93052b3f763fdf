"""What a model says: samples, and every measure of them."""
