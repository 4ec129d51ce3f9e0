// Produces columns: rows of Arrow's buffers become librdkafka's messages without a Python object
// each, and without the interpreter's lock.

#include "_librdkafka.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>

namespace {

using librdkafka::find;
using librdkafka::Message;

constexpr int kProducer = 0;              // RD_KAFKA_PRODUCER
constexpr int kCopy = 0x2;                // RD_KAFKA_MSG_F_COPY
constexpr int kPurgeAll = 0x1 | 0x2;      // RD_KAFKA_PURGE_F_QUEUE, RD_KAFKA_PURGE_F_INFLIGHT
constexpr int kQueueFull = -184;          // RD_KAFKA_RESP_ERR__QUEUE_FULL
// What rd_kafka_producev is told by (rd_kafka_vtype_t).
constexpr int kEnd = 0, kTopic = 2, kPartition = 3, kValue = 4, kKey = 5, kFlags = 7, kHeaders = 10;
// So many messages are described to librdkafka at a time; their descriptions stay in the cache.
constexpr size_t kGroup = 512;

struct Library {
  librdkafka::Opening opening;
  void (*set_opaque)(void*, void*);
  void (*set_delivered)(void*, void (*)(void*, const Message*, void*));
  void (*set_statistics)(void*, int (*)(void*, char*, size_t, void*));
  void (*set_error)(void*, void (*)(void*, int, const char*, void*));
  void* (*topic_new)(void*, const char*, void*);
  void (*topic_destroy)(void*);
  int (*produce_batch)(void*, int32_t, int, Message*, int);
  int (*producev)(void*, ...);
  void* (*headers_new)(size_t);
  int (*header_add)(void*, const char*, Py_ssize_t, const void*, Py_ssize_t);
  void (*headers_destroy)(void*);
  int (*poll)(void*, int);
  int (*flush)(void*, int);
  int (*left)(void*);
  int (*purge)(void*, int);
  void* (*init)(void*, int);
  void* (*begin)(void*);
  void* (*commit)(void*, int);
  void* (*abort)(void*, int);
  void* (*send_offsets)(void*, const void*, const void*, int);
  void* (*group_read)(void**, const void*, size_t);
  void (*group_destroy)(void*);
  void* (*list_new)(int);
  void* (*list_add)(void*, const char*, int32_t);
  void (*list_destroy)(void*);
  int (*fatal)(void*, char*, size_t);
  int (*error_code)(const void*);
  const char* (*error_text)(const void*);
  int (*error_fatal)(const void*);
  int (*error_retriable)(const void*);
  int (*error_aborts)(const void*);
  void (*error_destroy)(void*);
  void (*destroy)(void*);
};

bool find_library(const char* module, Library& library) {
  void* handle = librdkafka::opened(module);
  return handle != nullptr && library.opening.found(handle) &&
         find(handle, "rd_kafka_conf_set_opaque", library.set_opaque) &&
         find(handle, "rd_kafka_conf_set_dr_msg_cb", library.set_delivered) &&
         find(handle, "rd_kafka_conf_set_stats_cb", library.set_statistics) &&
         find(handle, "rd_kafka_conf_set_error_cb", library.set_error) &&
         find(handle, "rd_kafka_topic_new", library.topic_new) &&
         find(handle, "rd_kafka_topic_destroy", library.topic_destroy) &&
         find(handle, "rd_kafka_produce_batch", library.produce_batch) &&
         find(handle, "rd_kafka_producev", library.producev) &&
         find(handle, "rd_kafka_headers_new", library.headers_new) &&
         find(handle, "rd_kafka_header_add", library.header_add) &&
         find(handle, "rd_kafka_headers_destroy", library.headers_destroy) &&
         find(handle, "rd_kafka_poll", library.poll) &&
         find(handle, "rd_kafka_flush", library.flush) &&
         find(handle, "rd_kafka_outq_len", library.left) &&
         find(handle, "rd_kafka_purge", library.purge) &&
         find(handle, "rd_kafka_init_transactions", library.init) &&
         find(handle, "rd_kafka_begin_transaction", library.begin) &&
         find(handle, "rd_kafka_commit_transaction", library.commit) &&
         find(handle, "rd_kafka_abort_transaction", library.abort) &&
         find(handle, "rd_kafka_send_offsets_to_transaction", library.send_offsets) &&
         find(handle, "rd_kafka_consumer_group_metadata_read", library.group_read) &&
         find(handle, "rd_kafka_consumer_group_metadata_destroy", library.group_destroy) &&
         find(handle, "rd_kafka_topic_partition_list_new", library.list_new) &&
         find(handle, "rd_kafka_topic_partition_list_add", library.list_add) &&
         find(handle, "rd_kafka_topic_partition_list_destroy", library.list_destroy) &&
         find(handle, "rd_kafka_fatal_error", library.fatal) &&
         find(handle, "rd_kafka_error_code", library.error_code) &&
         find(handle, "rd_kafka_error_string", library.error_text) &&
         find(handle, "rd_kafka_error_is_fatal", library.error_fatal) &&
         find(handle, "rd_kafka_error_is_retriable", library.error_retriable) &&
         find(handle, "rd_kafka_error_txn_requires_abort", library.error_aborts) &&
         find(handle, "rd_kafka_error_destroy", library.error_destroy) &&
         find(handle, "rd_kafka_destroy", library.destroy);
}

// -- the producer -------------------------------------------------------------------------------

// One producer; owned by a capsule. Its callbacks run in whichever thread polls or waits for it.
struct Producer {
  Library library;
  void* client = nullptr;
  // By name; used with the interpreter's lock held.
  std::map<std::string, void*> topics;

  std::mutex mutex;
  std::string statistics;
  long long reports = 0;
  int failure = 0;

  ~Producer() {
    for (const auto& topic : topics) library.topic_destroy(topic.second);
    if (client != nullptr) library.destroy(client);
  }

  void* topic(const char* name) {
    void*& found = topics[name];
    if (found == nullptr) found = library.topic_new(client, name, nullptr);
    return found;
  }
};

void on_delivered(void*, const Message* message, void* opaque) {
  auto* producer = static_cast<Producer*>(opaque);
  if (message->error == 0) return;
  const std::lock_guard<std::mutex> lock(producer->mutex);
  // One says why; the first is the cause.
  if (producer->failure == 0) producer->failure = message->error;
}

int on_statistics(void*, char* text, size_t size, void* opaque) {
  auto* producer = static_cast<Producer*>(opaque);
  const std::lock_guard<std::mutex> lock(producer->mutex);
  producer->statistics.assign(text, size);
  ++producer->reports;
  return 0;
}

// Connections come and go; what matters is raised by the call that needs them.
void on_error(void*, int, const char*, void*) {}

constexpr char kCapsule[] = "pipeline.edges.kafka._produce.Producer";

Producer* producer_of(PyObject* capsule) {
  return static_cast<Producer*>(PyCapsule_GetPointer(capsule, kCapsule));
}

void forget(PyObject* capsule) {
  Producer* producer = producer_of(capsule);
  Py_BEGIN_ALLOW_THREADS;
  delete producer;
  Py_END_ALLOW_THREADS;
}

PyObject* connect(PyObject*, PyObject* arguments) {
  const char* module;
  PyObject* settings;
  if (!PyArg_ParseTuple(arguments, "sO", &module, &settings)) return nullptr;
  std::unique_ptr<Producer> producer(new (std::nothrow) Producer);
  if (producer == nullptr) return PyErr_NoMemory();
  const Library& library = producer->library;
  void* conf = nullptr;
  if (find_library(module, producer->library)) conf = library.opening.configured(settings);
  if (conf == nullptr) return nullptr;
  library.set_opaque(conf, producer.get());
  library.set_delivered(conf, on_delivered);
  library.set_statistics(conf, on_statistics);
  library.set_error(conf, on_error);
  producer->client = library.opening.client(kProducer, conf);
  if (producer->client == nullptr) return nullptr;
  return PyCapsule_New(producer.release(), kCapsule, forget);
}

// -- columns to messages ------------------------------------------------------------------------

// One column of bytes as Arrow has it: a bitmap or null, offsets, and the bytes.
class Texts {
 public:
  bool open(PyObject* item, Buffers& buffers) {
    PyObject *valid, *offsets, *bytes;
    char *bits, *numbers;
    if (!PyArg_ParseTuple(item, "nOOO", &first_, &valid, &offsets, &bytes) ||
        !buffers.open(valid, false, 0, &bits) || !buffers.open(offsets, false, 0, &numbers) ||
        !buffers.open(bytes, false, 0, &bytes_)) {
      return false;
    }
    valid_ = reinterpret_cast<const unsigned char*>(bits);
    offsets_ = numbers;
    return true;
  }

  // Points `data` at the row's bytes, at null where there is none.
  void at(Py_ssize_t row, void** data, size_t* size) const {
    static char nothing[1];
    const Py_ssize_t index = first_ + row;
    *data = nullptr;
    *size = 0;
    if (valid_ != nullptr && !(valid_[index >> 3] >> (index & 7) & 1)) return;
    std::array<int32_t, 2> ends;
    std::memcpy(ends.data(), offsets_ + 4 * index, sizeof ends);
    *size = static_cast<size_t>(ends[1] - ends[0]);
    // An empty text is not the same as none, and has no bytes to point at.
    *data = *size == 0 ? nothing : bytes_ + ends[0];
  }

 private:
  Py_ssize_t first_ = 0;
  const unsigned char* valid_ = nullptr;
  const char* offsets_ = nullptr;
  char* bytes_ = nullptr;
};

// How many rows of a call were taken, and why no more of them.
struct Taken {
  Py_ssize_t rows = 0;
  int error = 0;
};

// All in groups; after a full queue librdkafka takes no further row of a group.
Taken produce_rows(const Library& library, void* topic, int32_t partition, Py_ssize_t rows,
                   Py_ssize_t start, const Texts& keys, const Texts& values) {
  std::array<Message, kGroup> group{};
  Taken taken;
  for (Py_ssize_t row = start; row < rows && taken.error == 0;) {
    const auto size = static_cast<int>(std::min<Py_ssize_t>(rows - row, kGroup));
    for (int i = 0; i < size; ++i) {
      Message& message = group[static_cast<size_t>(i)];
      keys.at(row + i, &message.key, &message.key_length);
      values.at(row + i, &message.payload, &message.length);
    }
    const int good = library.produce_batch(topic, partition, kCopy, group.data(), size);
    for (int i = 0; i < size && good < size && taken.error == 0; ++i) {
      taken.error = group[static_cast<size_t>(i)].error;
    }
    taken.rows += good;
    row += size;
  }
  return taken;
}

// The headers of one row, a list of (name, bytes or None) or None; false with an exception set.
bool open_headers(const Library& library, PyObject* item, void** headers) {
  *headers = nullptr;
  if (item == nullptr) return false;
  if (item == Py_None) return true;
  const Py_ssize_t count = PyList_Size(item);
  if (count < 0) return false;
  *headers = library.headers_new(static_cast<size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    const char *name, *value;
    Py_ssize_t name_size, value_size;
    if (!PyArg_ParseTuple(PyList_GetItem(item, i), "s#z#", &name, &name_size, &value,
                          &value_size)) {
      library.headers_destroy(*headers);
      return false;
    }
    library.header_add(*headers, name, name_size, value, value_size);
  }
  return true;
}

// Row by row, as only so librdkafka takes headers. False with an exception set.
bool produce_with_headers(const Producer& producer, void* topic, int32_t partition,
                          Py_ssize_t rows, Py_ssize_t start, const Texts& keys,
                          const Texts& values, PyObject* all_headers, Taken& taken) {
  const Library& library = producer.library;
  for (Py_ssize_t row = start; row < rows && taken.error == 0; ++row) {
    void *headers, *key, *value;
    size_t key_size, value_size;
    if (!open_headers(library, PyList_GetItem(all_headers, row), &headers)) return false;
    keys.at(row, &key, &key_size);
    values.at(row, &value, &value_size);
    // Without headers the list ends earlier: librdkafka refuses a null one.
    taken.error = library.producev(producer.client, kTopic, topic, kPartition, partition, kFlags,
                                   kCopy, kKey, key, key_size, kValue, value, value_size,
                                   headers == nullptr ? kEnd : kHeaders, headers, kEnd);
    // They belong to the message from here on, unless there is none.
    if (taken.error != 0 && headers != nullptr) library.headers_destroy(headers);
    if (taken.error == 0) ++taken.rows;
  }
  return true;
}

PyObject* produce(PyObject*, PyObject* arguments) {
  PyObject *capsule, *key_column, *value_column, *headers;
  const char* name;
  int partition;
  Py_ssize_t rows, start;
  if (!PyArg_ParseTuple(arguments, "OsinnOOO", &capsule, &name, &partition, &rows, &start,
                        &key_column, &value_column, &headers)) {
    return nullptr;
  }
  Producer* producer = producer_of(capsule);
  Buffers buffers;
  Texts keys, values;
  if (producer == nullptr || !keys.open(key_column, buffers) ||
      !values.open(value_column, buffers)) {
    return nullptr;
  }
  Taken taken;
  try {
    void* topic = producer->topic(name);
    if (topic == nullptr) {
      PyErr_Format(PyExc_ValueError, "librdkafka refuses a topic of the name %s", name);
      return nullptr;
    }
    if (headers != Py_None) {
      if (!produce_with_headers(*producer, topic, partition, rows, start, keys, values, headers,
                                taken)) {
        return nullptr;
      }
    } else {
      Py_BEGIN_ALLOW_THREADS;
      taken = produce_rows(producer->library, topic, partition, rows, start, keys, values);
      Py_END_ALLOW_THREADS;
    }
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  return Py_BuildValue("ni", taken.rows, taken.error == kQueueFull ? 0 : taken.error);
}

// -- calls --------------------------------------------------------------------------------------

// librdkafka's error as (code, text, fatal, retriable, needs an abort), None where there is none.
PyObject* outcome(const Library& library, void* error) {
  if (error == nullptr) return Py_NewRef(Py_None);
  PyObject* made = Py_BuildValue("isiii", library.error_code(error), library.error_text(error),
                                 library.error_fatal(error), library.error_retriable(error),
                                 library.error_aborts(error));
  library.error_destroy(error);
  return made;
}

// The producer of a call that may take `milliseconds`; null with an exception set.
Producer* called(PyObject* arguments, int* milliseconds) {
  PyObject* capsule;
  if (!PyArg_ParseTuple(arguments, "Oi", &capsule, milliseconds)) return nullptr;
  return producer_of(capsule);
}

// A call of the transaction.
template <void* (*Library::*Call)(void*, int)>
PyObject* timed(PyObject*, PyObject* arguments) {
  int milliseconds;
  Producer* producer = called(arguments, &milliseconds);
  if (producer == nullptr) return nullptr;
  void* error;
  Py_BEGIN_ALLOW_THREADS;
  error = (producer->library.*Call)(producer->client, milliseconds);
  Py_END_ALLOW_THREADS;
  return outcome(producer->library, error);
}

PyObject* begin(PyObject*, PyObject* capsule) {
  Producer* producer = producer_of(capsule);
  if (producer == nullptr) return nullptr;
  return outcome(producer->library, producer->library.begin(producer->client));
}

struct Place {  // rd_kafka_topic_partition_t, as far as it is written here
  char* topic;
  int32_t partition;
  int64_t offset;
  void* metadata;  // freed by librdkafka
  size_t metadata_size;
};

// (topic, partition, offset, metadata) each; null with an exception set.
void* open_offsets(const Library& library, PyObject* items) {
  const Py_ssize_t count = PyList_Size(items);
  if (count < 0) return nullptr;
  void* list = library.list_new(static_cast<int>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    const char *topic, *metadata;
    int partition;
    long long offset;
    if (!PyArg_ParseTuple(PyList_GetItem(items, i), "siLs", &topic, &partition, &offset,
                          &metadata)) {
      library.list_destroy(list);
      return nullptr;
    }
    auto* place = static_cast<Place*>(library.list_add(list, topic, partition));
    place->offset = offset;
    place->metadata = strdup(metadata);
    // With its end, as confluent-kafka commits it: its reader looks for one in what was committed.
    place->metadata_size = std::strlen(metadata) + 1;
  }
  return list;
}

PyObject* send_offsets(PyObject*, PyObject* arguments) {
  PyObject *capsule, *items;
  const char* group_bytes;
  Py_ssize_t group_size;
  int milliseconds;
  if (!PyArg_ParseTuple(arguments, "OOy#i", &capsule, &items, &group_bytes, &group_size,
                        &milliseconds)) {
    return nullptr;
  }
  Producer* producer = producer_of(capsule);
  if (producer == nullptr) return nullptr;
  const Library& library = producer->library;
  void* offsets = open_offsets(library, items);
  if (offsets == nullptr) return nullptr;
  void* group = nullptr;
  void* error = library.group_read(&group, group_bytes, static_cast<size_t>(group_size));
  if (error == nullptr) {
    Py_BEGIN_ALLOW_THREADS;
    error = library.send_offsets(producer->client, offsets, group, milliseconds);
    Py_END_ALLOW_THREADS;
    library.group_destroy(group);
  }
  library.list_destroy(offsets);
  return outcome(library, error);
}

template <int (*Library::*call)(void*, int)>
PyObject* served(PyObject*, PyObject* arguments) {
  int milliseconds;
  Producer* producer = called(arguments, &milliseconds);
  if (producer == nullptr) return nullptr;
  Py_BEGIN_ALLOW_THREADS;
  (producer->library.*call)(producer->client, milliseconds);
  Py_END_ALLOW_THREADS;
  return Py_NewRef(Py_None);
}

PyObject* left(PyObject*, PyObject* capsule) {
  Producer* producer = producer_of(capsule);
  if (producer == nullptr) return nullptr;
  return PyLong_FromLong(producer->library.left(producer->client));
}

PyObject* purge(PyObject*, PyObject* capsule) {
  Producer* producer = producer_of(capsule);
  if (producer == nullptr) return nullptr;
  Py_BEGIN_ALLOW_THREADS;
  producer->library.purge(producer->client, kPurgeAll);
  Py_END_ALLOW_THREADS;
  return Py_NewRef(Py_None);
}

PyObject* fatal(PyObject*, PyObject* capsule) {
  Producer* producer = producer_of(capsule);
  if (producer == nullptr) return nullptr;
  char text[librdkafka::kErrorBytes];
  const int code = producer->library.fatal(producer->client, text, sizeof text);
  if (code == 0) return Py_NewRef(Py_None);
  return Py_BuildValue("is", code, text);
}

PyObject* heard(PyObject*, PyObject* capsule) {
  Producer* producer = producer_of(capsule);
  if (producer == nullptr) return nullptr;
  const std::lock_guard<std::mutex> lock(producer->mutex);
  return Py_BuildValue("Ly#i", producer->reports, producer->statistics.data(),
                       static_cast<Py_ssize_t>(producer->statistics.size()), producer->failure);
}

PyMethodDef kMethods[] = {
    {"connect", connect, METH_VARARGS, "See pipeline/edges/kafka/_produce.pyi."},
    {"produce", produce, METH_VARARGS, "See pipeline/edges/kafka/_produce.pyi."},
    {"init", timed<&Library::init>, METH_VARARGS, "See pipeline/edges/kafka/_produce.pyi."},
    {"begin", begin, METH_O, "See pipeline/edges/kafka/_produce.pyi."},
    {"send_offsets", send_offsets, METH_VARARGS, "See pipeline/edges/kafka/_produce.pyi."},
    {"commit", timed<&Library::commit>, METH_VARARGS, "See pipeline/edges/kafka/_produce.pyi."},
    {"abort", timed<&Library::abort>, METH_VARARGS, "See pipeline/edges/kafka/_produce.pyi."},
    {"poll", served<&Library::poll>, METH_VARARGS, "See pipeline/edges/kafka/_produce.pyi."},
    {"flush", served<&Library::flush>, METH_VARARGS, "See pipeline/edges/kafka/_produce.pyi."},
    {"left", left, METH_O, "See pipeline/edges/kafka/_produce.pyi."},
    {"purge", purge, METH_O, "See pipeline/edges/kafka/_produce.pyi."},
    {"fatal", fatal, METH_O, "See pipeline/edges/kafka/_produce.pyi."},
    {"heard", heard, METH_O, "See pipeline/edges/kafka/_produce.pyi."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef kModule = {
    PyModuleDef_HEAD_INIT, "pipeline.edges.kafka._produce", nullptr, 0,       kMethods,
    nullptr,               nullptr,                         nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__produce() { return PyModule_Create(&kModule); }
