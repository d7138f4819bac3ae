"""The package behind the notebooks of KV Cache from Scratch."""
