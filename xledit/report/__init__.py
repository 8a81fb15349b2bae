"""What people read: a page per pipeline, from results. No torch."""
