"""What a release says of itself, for those who must account for it: provenance, bill of materials, model signature."""
