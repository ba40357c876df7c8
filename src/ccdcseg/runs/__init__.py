"""What a training leaves behind: its record, its history and its evaluation, each written and read by one class.

Nothing here imports torch.
"""
