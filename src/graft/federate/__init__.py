"""A federation over a network: Graft trains, and Flower, in an environment of its own, carries the messages."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")  # hosts that only this machine reaches
