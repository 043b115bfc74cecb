"""The stand-in TracSeq estate: a monolith, ten services and light traffic, each a real process. See README.md."""
