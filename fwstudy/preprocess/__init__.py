"""The codec, face crops and splits: from clips to a crop set."""
