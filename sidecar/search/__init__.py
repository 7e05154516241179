"""What does a search request ask for, and which bytes of the answer are hits?

Pure: OpenSearch's request and response JSON, as bytes in and bytes out. No socket, no torch.
"""
