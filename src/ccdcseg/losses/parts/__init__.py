"""What the losses share; none of it is of one method."""
