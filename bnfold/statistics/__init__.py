"""The running statistics that BatchNorms store: do they still hold, and new ones where they do not."""
