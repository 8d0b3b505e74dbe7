"""The pages: server-rendered HTML over the server's API, plus native ES modules. No build step."""
