# Compiler settings shared by every target, and the two functions that declare targets.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(SEQPAR_CCACHE ccache)
if(SEQPAR_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # CCACHE_BASEDIR and NOHASHDIR let clones in other folders share the cache.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${SEQPAR_CCACHE})
endif()
find_program(SEQPAR_MOLD mold)
if(SEQPAR_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_compile_options(-Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-Wno-restrict) # GCC 12 sees overlaps in std::string that cannot be (GCC bug 105651)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wthread-safety;-Werror=thread-safety>")
endif()
if(SEQPAR_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "SEQPAR_FUZZ needs clang: -DCMAKE_CXX_COMPILER=clang++")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link) # of every unit: what is not instrumented guides nobody
endif()
if(SEQPAR_SANITIZE)
  add_compile_options(-fsanitize=${SEQPAR_SANITIZE} -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${SEQPAR_SANITIZE})
  if(SEQPAR_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
  if(SEQPAR_SANITIZE MATCHES "thread")
    add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-include ${PROJECT_SOURCE_DIR}/cmake/tsan_protobuf.h>")
  endif()
endif()

# seqpar_library(NAME folder_sources... DEPS targets...): a static library whose includes start at the root.
function(seqpar_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(${name} STATIC ${ARG_SRCS})
    target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
    target_link_libraries(${name} PUBLIC ${ARG_DEPS})
  else()
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE ${PROJECT_SOURCE_DIR})
    target_link_libraries(${name} INTERFACE ${ARG_DEPS})
  endif()
endfunction()

# seqpar_binary(NAME SRCS... DEPS...): an installed executable.
function(seqpar_binary name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()

# Sanitizers make a test several times slower: its limit grows by this factor, and so do the waits of a test that reads
# the environment variable of this name.
set(SEQPAR_TEST_TIME_FACTOR 1)
if(SEQPAR_SANITIZE)
  set(SEQPAR_TEST_TIME_FACTOR 4)
endif()

# seqpar_test_settings(NAME LABELS... TIMEOUT seconds ENV...): what every ctest entry has.
function(seqpar_test_settings name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "LABELS;ENV" ${ARGN})
  math(EXPR timeout "${ARG_TIMEOUT} * ${SEQPAR_TEST_TIME_FACTOR}")
  list(APPEND ARG_ENV SEQPAR_TEST_TIME_FACTOR=${SEQPAR_TEST_TIME_FACTOR})
  if(SEQPAR_SANITIZE MATCHES "thread")
    list(APPEND ARG_ENV UCX_MEM_EVENTS=n) # UCX patches munmap and its kin in memory: ThreadSanitizer's do not survive it
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${timeout} ENVIRONMENT "${ARG_ENV}")
endfunction()

# seqpar_test(NAME SRCS... DEPS... LABELS...): a gtest binary, one ctest entry. Labels: quick (default), full, e2e, and
# others (public, chart) for what is neither quick nor of real processes; rpc in addition where gRPC's threads run, which
# ThreadSanitizer cannot follow.
function(seqpar_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS;LABELS;ENV" ${ARGN})
  if("${ARG_LABELS}" STREQUAL "")
    set(ARG_LABELS quick)
  endif()
  if("${ARG_TIMEOUT}" STREQUAL "")
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  seqpar_test_settings(${name} LABELS ${ARG_LABELS} TIMEOUT ${ARG_TIMEOUT} ENV ${ARG_ENV})
endfunction()

# seqpar_bench(NAME SRCS... DEPS...): a Google Benchmark or plain bench binary; built, not run by ctest.
function(seqpar_bench name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} benchmark::benchmark)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bench)
endfunction()

# seqpar_tests(DEPS ... [LABELS ...]): every *_test.cc of this folder, one binary each; none can be forgotten.
function(seqpar_tests)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS;LABELS;ENV" ${ARGN})
  file(GLOB files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_test.cc)
  file(RELATIVE_PATH folder ${PROJECT_SOURCE_DIR}/tests ${CMAKE_CURRENT_SOURCE_DIR})
  string(REPLACE "/" "_" prefix "${folder}")
  foreach(file ${files})
    get_filename_component(stem ${file} NAME_WE)
    seqpar_test(${prefix}_${stem} SRCS ${file} ${ARG_SRCS} DEPS ${ARG_DEPS} LABELS "${ARG_LABELS}" TIMEOUT "${ARG_TIMEOUT}"
                ENV "${ARG_ENV}")
  endforeach()
endfunction()

# Adds each folder that has a CMakeLists.txt.
function(seqpar_add_folders)
  foreach(folder ${ARGN})
    if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/CMakeLists.txt)
      add_subdirectory(${folder})
    endif()
  endforeach()
endfunction()
