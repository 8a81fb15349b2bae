"""Edit facts inside a language model in one language, and measure whether and why they change in another."""
