"""What people read: figures, tables, sentences and the page that holds them. Results in, text out, no torch."""
