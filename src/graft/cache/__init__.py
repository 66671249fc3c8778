"""What is computed once and kept on disk for every job that needs it again."""
