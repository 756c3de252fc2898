"""Where DeepSearch's questions and passages come from: NQ, MuSiQue, plain JSONL, or a generated organisation."""
