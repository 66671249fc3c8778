"""The command line: help, errors in words, and what surrounds a job."""
