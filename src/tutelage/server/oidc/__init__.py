"""Signing in by an OpenID Connect provider: settings, one try of a browser, and the talk with the provider.

Core 1.0, authorization code flow with PKCE (RFC 7636); the person comes to us through `web.pages.sign_in`.
"""
