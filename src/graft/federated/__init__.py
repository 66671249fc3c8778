"""Clients that keep their samples and train together: who has which, what is sent, and what a server makes of it."""
