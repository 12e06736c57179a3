"""Makes the numbers of the native core visible to the test that compares them with Python's."""
