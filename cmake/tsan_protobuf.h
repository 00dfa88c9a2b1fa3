// Included before all else in builds with ThreadSanitizer. Protobuf's map_field.h gives every map field two
// more counters there, which the distribution's libprotobuf, built without, knows nothing of: a map that is
// read by reflection then has another layout on each side. So that header is read as if there were no
// sanitizer.
#if defined(__cplusplus) && defined(__SANITIZE_THREAD__)
#undef __SANITIZE_THREAD__
#include <google/protobuf/map_field.h>
#define __SANITIZE_THREAD__ 1
#endif
