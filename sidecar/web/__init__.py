"""Which URL does what? Flask: a factory, one blueprint a file, exceptions → status in one place."""
