"""What can be done with a model, one verb a file: `graft <verb>` or `python -m graft <verb>`."""
