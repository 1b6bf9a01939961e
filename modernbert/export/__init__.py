"""ONNX files of a model, in the layout that transformers.js, TEI and sentence-transformers read. Start with folder.py."""
