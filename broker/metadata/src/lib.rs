//! Cluster metadata: records to image, and controller decisions as request to records. Pure.
