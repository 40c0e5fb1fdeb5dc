"""Was anything known to the model before it was known to the world?"""
