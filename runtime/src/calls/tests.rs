//! Templates in the manner of the published families.

use super::*;
