"""Networks and blocks that more than one domain can use: time embeddings, an MLP, point clouds, long fields."""
