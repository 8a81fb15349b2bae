"""What both pages share: numbers as people read them, drawing, the template."""
