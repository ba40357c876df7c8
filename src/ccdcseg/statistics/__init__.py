"""Is one method better than another? Paired tests, intervals and ranks, the patient as their unit."""
