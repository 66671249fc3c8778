"""The command line: help, error messages, and what surrounds a job."""
