"""Is one model the same function as another?"""
