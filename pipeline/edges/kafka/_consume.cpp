// Consumes into columns: librdkafka's messages become Arrow's buffers without a Python object each.

#include "_librdkafka.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

namespace {

using librdkafka::find;
using librdkafka::Message;

constexpr int kConsumer = 1;  // RD_KAFKA_CONSUMER

struct Library {
  librdkafka::Opening opening;
  int (*poll_set_consumer)(void*);
  void* (*queue_get_consumer)(void*);
  void (*queue_destroy)(void*);
  void* (*list_new)(int);
  void* (*list_add)(void*, const char*, int32_t);
  int (*list_set_offset)(void*, const char*, int32_t, int64_t);
  void (*list_destroy)(void*);
  int (*assign)(void*, const void*);
  Py_ssize_t (*consume_batch)(void*, int, Message**, size_t);
  int64_t (*timestamp)(const Message*, int*);
  int (*headers)(const Message*, void**);
  int (*header_at)(const void*, size_t, const char**, const void**, size_t*);
  const char* (*message_error)(const Message*);
  void (*message_destroy)(Message*);
  int (*close)(void*);
  void (*destroy)(void*);
};

bool find_library(const char* module, Library& library) {
  void* handle = librdkafka::opened(module);
  return handle != nullptr && library.opening.found(handle) &&
         find(handle, "rd_kafka_poll_set_consumer", library.poll_set_consumer) &&
         find(handle, "rd_kafka_queue_get_consumer", library.queue_get_consumer) &&
         find(handle, "rd_kafka_queue_destroy", library.queue_destroy) &&
         find(handle, "rd_kafka_topic_partition_list_new", library.list_new) &&
         find(handle, "rd_kafka_topic_partition_list_add", library.list_add) &&
         find(handle, "rd_kafka_topic_partition_list_set_offset", library.list_set_offset) &&
         find(handle, "rd_kafka_topic_partition_list_destroy", library.list_destroy) &&
         find(handle, "rd_kafka_assign", library.assign) &&
         find(handle, "rd_kafka_consume_batch_queue", library.consume_batch) &&
         find(handle, "rd_kafka_message_timestamp", library.timestamp) &&
         find(handle, "rd_kafka_message_headers", library.headers) &&
         find(handle, "rd_kafka_header_get_all", library.header_at) &&
         find(handle, "rd_kafka_message_errstr", library.message_error) &&
         find(handle, "rd_kafka_message_destroy", library.message_destroy) &&
         find(handle, "rd_kafka_consumer_close", library.close) &&
         find(handle, "rd_kafka_destroy", library.destroy);
}

// -- the consumer -------------------------------------------------------------------------------

// One consumer and its queue; owned by a capsule, used by one thread.
struct Consumer {
  Library library;
  void* client = nullptr;
  void* queue = nullptr;
  std::vector<Message*> messages;

  void close() {
    if (client == nullptr) return;
    library.close(client);
    library.queue_destroy(queue);
    library.destroy(client);
    client = nullptr;
  }
};

constexpr char kCapsule[] = "pipeline.edges.kafka._consume.Consumer";

Consumer* opened(PyObject* capsule) {
  auto* consumer = static_cast<Consumer*>(PyCapsule_GetPointer(capsule, kCapsule));
  if (consumer != nullptr && consumer->client == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "the consumer is closed");
    return nullptr;
  }
  return consumer;
}

void forget(PyObject* capsule) {
  auto* consumer = static_cast<Consumer*>(PyCapsule_GetPointer(capsule, kCapsule));
  Py_BEGIN_ALLOW_THREADS;
  consumer->close();
  Py_END_ALLOW_THREADS;
  delete consumer;
}

PyObject* connect(PyObject*, PyObject* arguments) {
  const char* module;
  PyObject* settings;
  if (!PyArg_ParseTuple(arguments, "sO", &module, &settings)) return nullptr;
  auto* consumer = new (std::nothrow) Consumer;
  if (consumer == nullptr) return PyErr_NoMemory();
  const librdkafka::Opening& opening = consumer->library.opening;
  void* conf = nullptr;
  if (find_library(module, consumer->library)) conf = opening.configured(settings);
  if (conf != nullptr) consumer->client = opening.client(kConsumer, conf);
  if (consumer->client == nullptr) {
    delete consumer;
    return nullptr;
  }
  consumer->library.poll_set_consumer(consumer->client);
  consumer->queue = consumer->library.queue_get_consumer(consumer->client);
  return PyCapsule_New(consumer, kCapsule, forget);
}

PyObject* assign(PyObject*, PyObject* arguments) {
  PyObject *capsule, *positions;
  if (!PyArg_ParseTuple(arguments, "OO", &capsule, &positions)) return nullptr;
  Consumer* consumer = opened(capsule);
  const Py_ssize_t count = consumer == nullptr ? -1 : PyList_Size(positions);
  if (count < 0) return nullptr;
  const Library& library = consumer->library;
  void* list = library.list_new(static_cast<int>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    const char* topic;
    int partition;
    long long offset;
    if (!PyArg_ParseTuple(PyList_GetItem(positions, i), "siL", &topic, &partition, &offset)) {
      library.list_destroy(list);
      return nullptr;
    }
    library.list_add(list, topic, partition);
    library.list_set_offset(list, topic, partition, offset);
  }
  int error;
  Py_BEGIN_ALLOW_THREADS;
  error = library.assign(consumer->client, list);
  Py_END_ALLOW_THREADS;
  library.list_destroy(list);
  return PyLong_FromLong(error);
}

// -- messages to columns ------------------------------------------------------------------------

// One column of bytes as Arrow has it: offsets [rows + 1], the bytes, and a bitmap or None.
class Texts {
 public:
  ~Texts() {
    Py_XDECREF(offsets_);
    Py_XDECREF(bytes_);
    Py_XDECREF(valid_);
  }

  bool allocate(size_t rows, size_t bytes, bool nulls) {
    if (bytes > INT32_MAX) {
      PyErr_SetString(PyExc_OverflowError, "one poll brought more than 2 GiB");
      return false;
    }
    offsets_ = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(4 * (rows + 1)));
    bytes_ = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(bytes));
    if (nulls) valid_ = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(rows / 8 + 1));
    if (offsets_ == nullptr || bytes_ == nullptr || (nulls && valid_ == nullptr)) return false;
    offset_ = PyBytes_AsString(offsets_);
    begin_ = at_ = PyBytes_AsString(bytes_);
    if (nulls) bits_ = PyBytes_AsString(valid_);
    if (nulls) std::memset(bits_, 0, rows / 8 + 1);
    return true;
  }

  void put(size_t row, const void* data, size_t length) {
    set_offset(row);
    if (data == nullptr) return;
    if (bits_ != nullptr) bits_[row >> 3] = static_cast<char>(bits_[row >> 3] | 1 << (row & 7));
    std::memcpy(at_, data, length);
    at_ += length;
  }

  void set_offset(size_t row) {
    const auto offset = static_cast<int32_t>(at_ - begin_);
    std::memcpy(offset_ + 4 * row, &offset, sizeof offset);
  }

  PyObject* offsets() const { return offsets_; }
  PyObject* bytes() const { return bytes_; }
  PyObject* valid() const { return valid_ == nullptr ? Py_None : valid_; }

 private:
  PyObject *offsets_ = nullptr, *bytes_ = nullptr, *valid_ = nullptr;
  char *offset_ = nullptr, *begin_ = nullptr, *at_ = nullptr, *bits_ = nullptr;
};

// The headers of one message as [(name, bytes or None)], or None; null with an exception set.
PyObject* headers_of(const Library& library, const Message* message) {
  void* headers;
  if (library.headers(message, &headers) != 0) return Py_NewRef(Py_None);
  PyObject* list = PyList_New(0);
  const char* name;
  const void* value;
  size_t size;
  for (size_t i = 0; list != nullptr && library.header_at(headers, i, &name, &value, &size) == 0;
       ++i) {
    PyObject* pair = Py_BuildValue("sy#", name, static_cast<const char*>(value),
                                   static_cast<Py_ssize_t>(size));
    if (pair == nullptr || PyList_Append(list, pair) != 0) Py_CLEAR(list);
    Py_XDECREF(pair);
  }
  return list;
}

// Headers row by row, or None where no message has any: that saves a list on the hot path.
PyObject* all_headers(const Library& library, const std::vector<Message*>& records) {
  void* headers;
  const bool any = std::any_of(records.begin(), records.end(), [&](const Message* message) {
    return library.headers(message, &headers) == 0;
  });
  if (!any) return Py_NewRef(Py_None);
  PyObject* list = PyList_New(0);
  for (size_t i = 0; list != nullptr && i < records.size(); ++i) {
    PyObject* one = headers_of(library, records[i]);
    if (one == nullptr || PyList_Append(list, one) != 0) Py_CLEAR(list);
    Py_XDECREF(one);
  }
  return list;
}

// What stands in a record's place: (code, partition, offset, text) in a list.
PyObject* all_events(const Library& library, const std::vector<Message*>& events) {
  PyObject* list = PyList_New(0);
  for (size_t i = 0; list != nullptr && i < events.size(); ++i) {
    const Message* message = events[i];
    PyObject* event = Py_BuildValue("iiLs", message->error, message->partition,
                                    static_cast<long long>(message->offset),
                                    library.message_error(message));
    if (event == nullptr || PyList_Append(list, event) != 0) Py_CLEAR(list);
    Py_XDECREF(event);
  }
  return list;
}

template <typename Value>
PyObject* numbers(size_t rows, Value** values) {
  PyObject* bytes =
      PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(rows * sizeof(Value)));
  if (bytes != nullptr) *values = reinterpret_cast<Value*>(PyBytes_AsString(bytes));
  return bytes;
}

PyObject* columns(const Library& library, std::vector<Message*>& records,
                  const std::vector<Message*>& events) {
  size_t key_bytes = 0, value_bytes = 0;
  bool null_keys = false, null_values = false;
  for (const Message* message : records) {
    key_bytes += message->key_length;
    value_bytes += message->length;
    null_keys = null_keys || message->key == nullptr;
    null_values = null_values || message->payload == nullptr;
  }
  // By partition, as a batch needs them; each partition's order stays.
  std::stable_sort(records.begin(), records.end(), [](const Message* one, const Message* other) {
    return one->partition < other->partition;
  });
  const size_t rows = records.size();
  Texts keys, values;
  int32_t* partition = nullptr;
  int64_t *offset = nullptr, *stamp = nullptr;
  PyObject* partitions = numbers(rows, &partition);
  PyObject* offsets = numbers(rows, &offset);
  PyObject* stamps = numbers(rows, &stamp);
  PyObject* headers = all_headers(library, records);
  PyObject* others = all_events(library, events);
  PyObject* answer = nullptr;
  if (partitions != nullptr && offsets != nullptr && stamps != nullptr && headers != nullptr &&
      others != nullptr && keys.allocate(rows, key_bytes, null_keys) &&
      values.allocate(rows, value_bytes, null_values)) {
    Py_BEGIN_ALLOW_THREADS;
    for (size_t row = 0; row < rows; ++row) {
      const Message* message = records[row];
      int kind;
      partition[row] = message->partition;
      offset[row] = message->offset;
      stamp[row] = library.timestamp(message, &kind);
      keys.put(row, message->key, message->key_length);
      values.put(row, message->payload, message->length);
    }
    keys.set_offset(rows);
    values.set_offset(rows);
    Py_END_ALLOW_THREADS;
    answer = PyTuple_Pack(11, partitions, offsets, stamps, keys.valid(), keys.offsets(),
                          keys.bytes(), values.valid(), values.offsets(), values.bytes(), headers,
                          others);
  }
  for (PyObject* one : {partitions, offsets, stamps, headers, others}) Py_XDECREF(one);
  return answer;
}

PyObject* poll(PyObject*, PyObject* arguments) {
  PyObject* capsule;
  Py_ssize_t most;
  int milliseconds, fill;
  if (!PyArg_ParseTuple(arguments, "Onip", &capsule, &most, &milliseconds, &fill)) return nullptr;
  Consumer* consumer = opened(capsule);
  if (consumer == nullptr) return nullptr;
  const Library& library = consumer->library;
  PyObject* answer = nullptr;
  Py_ssize_t count = 0;
  try {
    std::vector<Message*>& messages = consumer->messages;
    messages.resize(static_cast<size_t>(most));
    Py_BEGIN_ALLOW_THREADS;
    // librdkafka waits until it has as many as asked for or the time is up.
    size_t awaited = fill ? messages.size() : 1;
    count = std::max<Py_ssize_t>(
        library.consume_batch(consumer->queue, milliseconds, messages.data(), awaited), 0);
    if (count == 1 && awaited < messages.size()) {
      count += std::max<Py_ssize_t>(
          library.consume_batch(consumer->queue, 0, messages.data() + 1, messages.size() - 1), 0);
    }
    Py_END_ALLOW_THREADS;
    std::vector<Message*> records, events;
    records.reserve(static_cast<size_t>(count));
    for (Py_ssize_t i = 0; i < count; ++i) {
      Message* message = messages[static_cast<size_t>(i)];
      (message->error == 0 ? records : events).push_back(message);
    }
    answer = columns(library, records, events);
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  }
  Py_BEGIN_ALLOW_THREADS;
  for (Py_ssize_t i = 0; i < count; ++i) {
    library.message_destroy(consumer->messages[static_cast<size_t>(i)]);
  }
  Py_END_ALLOW_THREADS;
  return answer;
}

PyObject* close(PyObject*, PyObject* capsule) {
  auto* consumer = static_cast<Consumer*>(PyCapsule_GetPointer(capsule, kCapsule));
  if (consumer == nullptr) return nullptr;
  Py_BEGIN_ALLOW_THREADS;
  consumer->close();
  Py_END_ALLOW_THREADS;
  return Py_NewRef(Py_None);
}

PyMethodDef kMethods[] = {
    {"connect", connect, METH_VARARGS, "See pipeline/edges/kafka/_consume.pyi."},
    {"assign", assign, METH_VARARGS, "See pipeline/edges/kafka/_consume.pyi."},
    {"poll", poll, METH_VARARGS, "See pipeline/edges/kafka/_consume.pyi."},
    {"close", close, METH_O, "See pipeline/edges/kafka/_consume.pyi."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef kModule = {
    PyModuleDef_HEAD_INIT, "pipeline.edges.kafka._consume", nullptr, 0,       kMethods,
    nullptr,               nullptr,                         nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__consume() { return PyModule_Create(&kModule); }
