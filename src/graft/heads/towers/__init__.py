"""From texts to vectors, beside a backbone whose features are compared with them; one tower a file."""
