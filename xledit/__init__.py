"""xledit: when a fact is edited in one language, does it change in another, and why?"""
