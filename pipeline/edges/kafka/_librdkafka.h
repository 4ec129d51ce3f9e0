// The librdkafka that confluent-kafka has loaded, found by the name of its extension module (dlsym
// searches that object and what it was linked with). Only functions and the one struct of its
// public interface (rdkafka.h) are used, which stay as they are within version 2.

#pragma once

#include "../../_buffers.h"

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>

namespace librdkafka {

struct Message {  // rd_kafka_message_t
  int error;
  void* topic;
  int32_t partition;
  void* payload;
  size_t length;
  void* key;
  size_t key_length;
  int64_t offset;
  void* opaque;
};

constexpr int kConfigured = 0;  // RD_KAFKA_CONF_OK
constexpr size_t kErrorBytes = 512;

// The loaded extension `module`; null with ImportError set where it is not loaded.
inline void* opened(const char* module) {
  void* handle = dlopen(module, RTLD_NOW | RTLD_NOLOAD);
  if (handle == nullptr) PyErr_Format(PyExc_ImportError, "%s is not loaded", module);
  return handle;
}

template <typename Function>
bool find(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  if (function == nullptr) PyErr_Format(PyExc_ImportError, "librdkafka has no %s", name);
  return function != nullptr;
}

// What opening a client takes, of either kind.
struct Opening {
  void* (*conf_new)();
  int (*conf_set)(void*, const char*, const char*, char*, size_t);
  void (*conf_destroy)(void*);
  void* (*open)(int, void*, char*, size_t);

  bool found(void* handle) {
    return find(handle, "rd_kafka_conf_new", conf_new) &&
           find(handle, "rd_kafka_conf_set", conf_set) &&
           find(handle, "rd_kafka_conf_destroy", conf_destroy) &&
           find(handle, "rd_kafka_new", open);
  }

  // A configuration of `settings`, a dict of texts; null with ValueError set where librdkafka
  // refuses one.
  void* configured(PyObject* settings) const {
    void* conf = conf_new();
    PyObject *name, *value;
    Py_ssize_t position = 0;
    char problem[kErrorBytes];
    while (PyDict_Next(settings, &position, &name, &value)) {
      const char* key = PyUnicode_AsUTF8AndSize(name, nullptr);
      const char* text = PyUnicode_AsUTF8AndSize(value, nullptr);
      if (key != nullptr && text != nullptr &&
          conf_set(conf, key, text, problem, sizeof problem) == kConfigured) {
        continue;
      }
      if (key != nullptr && text != nullptr) PyErr_SetString(PyExc_ValueError, problem);
      conf_destroy(conf);
      return nullptr;
    }
    return conf;
  }

  // A client of `kind` that owns the configuration; null with ValueError set.
  void* client(int kind, void* conf) const {
    char problem[kErrorBytes];
    void* made = open(kind, conf, problem, sizeof problem);
    if (made == nullptr) {
      conf_destroy(conf);
      PyErr_SetString(PyExc_ValueError, problem);
    }
    return made;
  }
};

}  // namespace librdkafka
