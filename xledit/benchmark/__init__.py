"""Our own benchmark: its tables, its rules, its targets, and the records made of them."""
