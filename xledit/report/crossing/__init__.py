"""The joint experiment in numbers, words and one figure."""
