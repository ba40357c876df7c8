"""How good is a segmentation, and is one method better than another?

The unit of every mean, interval and test is the patient. Every HD95 carries its definition in its name.
"""
