"""OpenAI's HTTP API: `/v1`. Programs come with a key; nothing they say is stored."""
