"""A federation over a network: Graft trains, and Flower, in an environment of its own, carries the messages."""
