"""How much faster is one model than another?"""
