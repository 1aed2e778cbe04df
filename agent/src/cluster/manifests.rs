//! Objects from manifest files.
