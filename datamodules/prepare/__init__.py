"""The files that the makers of VQA v2, GQA, NLVR2, COCO and Visual Genome publish -> text stores."""
