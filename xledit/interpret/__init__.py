"""What goes on inside a model that reads many languages: its states layer by layer, and its neurons."""
