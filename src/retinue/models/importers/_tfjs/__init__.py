"""Parts of the TFJS importer: the package's files, the graph being built, the operators."""
