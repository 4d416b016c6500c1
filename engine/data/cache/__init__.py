"""Raw bars on the disk: what a source gave stays there, and what is missing is fetched."""
