// Versions: of the header that this was compiled with, and of the library that runs.

package pvera

// #include "shim.h"
import "C"

// HeaderVersion is the version of the header that this package was compiled with, as major·10⁶ + minor·10³ + patch.
const HeaderVersion = C.PVERA_VERSION

// Version is the version of the library that runs, to be compared with [HeaderVersion].
func Version() uint32 { return uint32(C.pvera_version()) }

// VersionText is [Version] as a text, "0.1.0".
func VersionText() string { return C.GoString(C.pvera_version_text()) }
