"""What is predicted: loss, metrics, output size; one task a file."""
